-- Which redrive has a letter, and until when by this server's clock_timestamp(): it is taken before the letter is published.
ALTER TABLE tidings.letters ADD COLUMN leased_by uuid, ADD COLUMN leased_until timestamptz;
