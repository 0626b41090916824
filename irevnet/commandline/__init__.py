"""Terminal and options of the two commands; nothing else imports it."""
