"""What stands beside the router: a test stand, the demonstration, tools for its documents."""
