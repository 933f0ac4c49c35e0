"""What the budgets are measured against: plain programs that do the same kind of thing in the usual way."""
