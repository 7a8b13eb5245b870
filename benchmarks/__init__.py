"""Programs that measure, each run by its path; what they share are modules beside them."""
