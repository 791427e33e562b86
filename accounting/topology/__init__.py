"""What sites and other values belong to, and since when."""
