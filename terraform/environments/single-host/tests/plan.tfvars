# For the offline plan: no real names.
client_cidrs   = ["203.0.113.0/24"]
domain_name    = "engine.example.com"
zone_name      = "example.com"
repository_url = "https://git.example.com/engine.git"
repository_ref = "0123456789abcdef0123456789abcdef01234567"
