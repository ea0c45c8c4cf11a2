"""Templates of a Space, which serves `avplatform demo` on the Hub."""
