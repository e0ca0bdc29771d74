CREATE TABLE notes (written timestamptz NOT NULL DEFAULT now(), note text NOT NULL);
INSERT INTO notes (note) VALUES ('the first note');
