"""The benches: what they share is imported as a package, what is run is run as a script."""
