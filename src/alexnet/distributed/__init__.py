"""Several processes that compute one thing: how they meet, who takes what, what they send. Knows no network."""
