"""What is known of earlier versions, and where entries go while they are read."""
