"""What can be trained; one folder a method, one loop for all."""
