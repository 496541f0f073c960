"""What users hold in their hands: a client, its views and their results."""
