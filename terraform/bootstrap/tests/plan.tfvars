# For the offline plan: no real names.
bucket_name = "example-terraform-state"
