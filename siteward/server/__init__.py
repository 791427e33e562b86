"""The web application, its periodic tasks and the supervisor."""
