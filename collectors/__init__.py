"""Takes records from the world and from the broker to the sinks."""
