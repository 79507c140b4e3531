"""What our tests, the demo and authors of plug-ins share; never imported while taking data."""
