output "role_arns" {
  description = "Role of each purpose: images, deploy, and plan where the state is known"
  value       = { for purpose, role in aws_iam_role.this : purpose => role.arn }
}

output "trusts_json" {
  description = "Who may take each role, for tests"
  value       = { for purpose, document in data.aws_iam_policy_document.trust : purpose => document.json }
}

output "policies_json" {
  description = "What each role may do, for tests"
  value = merge(
    { images = data.aws_iam_policy_document.images.json, deploy = data.aws_iam_policy_document.deploy.json },
    var.state == null ? {} : { plan = data.aws_iam_policy_document.plan[0].json },
  )
}
