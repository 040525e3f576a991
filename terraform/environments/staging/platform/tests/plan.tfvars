# For the offline plan: no real names.
zone_name = "example.com"
