"""Parts that several pages share and that own their session keys."""
