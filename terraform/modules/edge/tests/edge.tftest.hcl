variables {
  name              = "engine-test-us-east-1"
  vpc_id            = "vpc-1"
  subnet_ids        = ["subnet-a", "subnet-b", "subnet-c"]
  security_group_id = "sg-edge"
  domain_name       = "api.example.com"
  regional_name     = "us-east-1.api.example.com"
  zone_id           = "Z1"
  logs_kms_key_arn  = "arn:aws:kms:us-east-1:123456789012:key/logs"
  log_bucket_name   = "engine-test-edge"
}

run "clients_speak_tls_behind_waf" {
  command = plan

  assert {
    condition     = aws_lb_listener.https.ssl_policy == "ELBSecurityPolicy-TLS13-1-2-Res-2021-06" && aws_lb_listener.https.port == 443
    error_message = "Old TLS is accepted."
  }

  assert {
    condition     = one(one(aws_lb_listener.http.default_action).redirect).protocol == "HTTPS" && one(one(aws_lb_listener.http.default_action).redirect).status_code == "HTTP_308"
    error_message = "Plain HTTP must only lead to HTTPS, and a POST must stay one."
  }

  assert {
    condition     = aws_lb.this.access_logs[0].enabled && aws_lb.this.drop_invalid_header_fields && aws_lb.this.enable_deletion_protection && !aws_lb.this.enable_waf_fail_open
    error_message = "The load balancer keeps no log, passes bad headers, can be deleted, or works without WAF."
  }

  assert {
    condition     = aws_lb_target_group.gateway.protocol == "HTTPS" && aws_lb_target_group.gateway.target_type == "ip" && length(aws_lb_target_group.gateway.name) <= 32
    error_message = "Between load balancer and gateway nothing may be readable."
  }

  assert {
    condition     = aws_lb_target_group.gateway.health_check[0].path == "/healthz/ready" && aws_lb_target_group.gateway.health_check[0].port == "15021" && aws_lb_target_group.gateway.port == 443
    error_message = "The load balancer asks or serves another port than the gateway's pods have."
  }
}
