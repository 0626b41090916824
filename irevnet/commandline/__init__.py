"""What the two commands share with a terminal; nothing else imports it."""
