"""Communication with agents: start them, send requests, receive answers and events."""
