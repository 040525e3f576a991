# CloudFront in front of both regions: TLS ends near the client, attacks end at the edge, nothing is
# cached. It is worth its price where clients are far away or many; machines next to a region need none.
#
# Everything here must be made in us-east-1.

resource "aws_acm_certificate" "this" {
  domain_name       = var.domain_name
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "proof" {
  zone_id         = var.zone_id
  name            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_name])
  type            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_type])
  records         = [for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [aws_route53_record.proof.fqdn]
}

module "waf" {
  source = "../waf"

  name             = "${var.name}-cdn"
  scope            = "CLOUDFRONT"
  rate_limit       = var.waf_rate_limit
  logs_kms_key_arn = var.logs_kms_key_arn
}

# AWS's policies: no caching; and every header, query and cookie is passed on. Host too: by it the load
# balancer's certificate is checked, and Istio finds the engine.
data "aws_cloudfront_cache_policy" "none" {
  name = "Managed-CachingDisabled"
}

data "aws_cloudfront_origin_request_policy" "all" {
  name = "Managed-AllViewer"
}

data "aws_cloudfront_response_headers_policy" "security" {
  name = "Managed-SecurityHeadersPolicy"
}

resource "aws_cloudfront_distribution" "this" {
  #checkov:skip=CKV_AWS_86: every request is in the load balancer's log, what was blocked in WAF's
  #checkov:skip=CKV_AWS_374: clients may be anywhere
  #checkov:skip=CKV_AWS_310: an origin group does not repeat a POST; the origin's records fail over themselves
  #checkov:skip=CKV_AWS_305: an API has no index page

  enabled         = true
  comment         = var.name
  aliases         = [var.domain_name]
  http_version    = "http2and3"
  is_ipv6_enabled = true
  price_class     = "PriceClass_100" # North America and Europe
  web_acl_id      = module.waf.arn

  origin {
    domain_name = var.origin_name
    origin_id   = "regions"

    custom_origin_config {
      http_port              = 80
      https_port             = 443
      origin_protocol_policy = "https-only"
      origin_ssl_protocols   = ["TLSv1.2"]
      # The engine answers within 10 s and Istio within 25 s; CloudFront must not give up before.
      origin_read_timeout      = 30
      origin_keepalive_timeout = 60
    }
  }

  default_cache_behavior {
    target_origin_id           = "regions"
    viewer_protocol_policy     = "https-only" # a redirected POST would have been sent in the clear already
    allowed_methods            = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"]
    cached_methods             = ["GET", "HEAD"]
    cache_policy_id            = data.aws_cloudfront_cache_policy.none.id
    origin_request_policy_id   = data.aws_cloudfront_origin_request_policy.all.id
    response_headers_policy_id = data.aws_cloudfront_response_headers_policy.security.id
    compress                   = false
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    acm_certificate_arn      = aws_acm_certificate_validation.this.certificate_arn
    ssl_support_method       = "sni-only"
    minimum_protocol_version = "TLSv1.2_2021"
  }
}

resource "aws_route53_record" "this" {
  for_each = toset(["A", "AAAA"])

  zone_id = var.zone_id
  name    = var.domain_name
  type    = each.key

  alias {
    name                   = aws_cloudfront_distribution.this.domain_name
    zone_id                = aws_cloudfront_distribution.this.hosted_zone_id
    evaluate_target_health = false
  }
}
