"""What a tier policy is: its YAML, what it may ask about, its checks, and the SQL it becomes."""
