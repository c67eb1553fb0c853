"""What holds on a real Kafka broker: that of this machine, as `arrears kafka start` gives it to a user."""
