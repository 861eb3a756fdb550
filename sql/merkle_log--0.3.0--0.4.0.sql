-- From 0.3.0 to 0.4.0.

-- Capture.

-- Entries and their limits.

-- Privileges and views.

-- Administration log and verification.

-- Sources and what is promised about them.
