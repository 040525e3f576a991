# For the offline plan of ops/test-infra.d/terraform: no real names.
zone_name    = "example.com"
domain_name  = "api.production.example.com"
alarm_emails = ["oncall@example.com"]

administrator_role_arns = ["arn:aws:iam::123456789012:role/administrator"]

github = {
  repository  = "example/engine"
  environment = "production"
}

state = {
  bucket_name = "example-terraform-state"
  kms_key_arn = "arn:aws:kms:us-east-1:123456789012:key/state"
}
