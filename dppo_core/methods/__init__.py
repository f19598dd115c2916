"""Trust-region methods: what they are called and what they need."""
