"""``rivulet demo``: a shop, a broker and a Redis in this machine's memory."""
