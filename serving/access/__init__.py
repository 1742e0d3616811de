"""Who calls, what they may, how often, and what is left alone because it fails. Knows neither the database nor HTTP."""
