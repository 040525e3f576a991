# The only thing of a region that the internet reaches: an application load balancer that ends TLS,
# with WAF before it and Istio's gateway behind it.
#
# Terraform owns it, not the controller in the cluster: DNS, WAF and alarms hang on it, and a rebuilt
# cluster keeps its address. The controller only registers the gateway's pods (TargetGroupBinding).

locals {
  short = trimsuffix(substr(var.name, 0, 24), "-")
}

resource "aws_lb" "this" {
  name               = "${local.short}-edge"
  load_balancer_type = "application"
  internal           = false
  subnets            = var.subnet_ids
  security_groups    = [var.security_group_id]
  idle_timeout       = var.idle_timeout_seconds

  drop_invalid_header_fields = true
  desync_mitigation_mode     = "strictest"
  enable_deletion_protection = var.deletion_protection
  enable_waf_fail_open       = false # without WAF no traffic, rather than traffic without WAF

  access_logs {
    enabled = true
    bucket  = var.log_bucket_name
    prefix  = "alb"
  }
}

resource "aws_lb_target_group" "gateway" {
  name        = "${local.short}-gw"
  vpc_id      = var.vpc_id
  target_type = "ip" # pods themselves: no hop through a node's port

  # The gateway's certificate is its own; a load balancer does not check it. It also sends no server
  # name (SNI), so the Gateway must accept any: hosts ["*"] in its server.
  port             = var.gateway_port
  protocol         = "HTTPS"
  protocol_version = "HTTP1"

  load_balancing_algorithm_type = "least_outstanding_requests"
  # As long as a gateway pod drains; its longest request is one deadline.
  deregistration_delay = "45"

  health_check {
    port                = tostring(var.gateway_health_port)
    protocol            = "HTTP"
    path                = "/healthz/ready"
    matcher             = "200"
    interval            = 5
    timeout             = 3
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_acm_certificate" "this" {
  domain_name               = var.domain_name
  subject_alternative_names = [var.regional_name]
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "proof" {
  # Both names are known beforehand, AWS's answer is not.
  for_each = toset([var.domain_name, var.regional_name])

  zone_id         = var.zone_id
  name            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_name if option.domain_name == each.key])
  type            = one([for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_type if option.domain_name == each.key])
  records         = [for option in aws_acm_certificate.this.domain_validation_options : option.resource_record_value if option.domain_name == each.key]
  ttl             = 300
  allow_overwrite = true # the other region proves the common name by the same record
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in aws_route53_record.proof : record.fqdn]
}

resource "aws_lb_listener" "https" {
  load_balancer_arn = aws_lb.this.arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-Res-2021-06" # TLS 1.3, and 1.2 with forward secrecy
  certificate_arn   = aws_acm_certificate_validation.this.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.gateway.arn
  }
}

resource "aws_lb_listener" "http" {
  load_balancer_arn = aws_lb.this.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type = "redirect"

    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_308" # a POST stays a POST
    }
  }
}

module "waf" {
  source = "../waf"

  name             = "${var.name}-edge"
  scope            = "REGIONAL"
  rate_limit       = var.waf_rate_limit
  count_only       = var.waf_count_only
  logs_kms_key_arn = var.logs_kms_key_arn
}

resource "aws_wafv2_web_acl_association" "this" {
  resource_arn = aws_lb.this.arn
  web_acl_arn  = module.waf.arn
}
