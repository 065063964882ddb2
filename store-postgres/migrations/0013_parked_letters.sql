-- Letters that an operator set aside: neither open nor closed.
ALTER TABLE tidings.letters ADD COLUMN parked_at timestamptz;
