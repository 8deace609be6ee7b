"""What a person asks for: measure, profile, search, verify, loop, report, bench."""
