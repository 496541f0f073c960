"""What is remembered of a cluster: the records, the stores that keep them, the queries."""
