"""What a hostile or broken world sends: mutated conversations, and one target per decoder."""
