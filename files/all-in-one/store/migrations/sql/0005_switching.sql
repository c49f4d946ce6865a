-- One generation at most takes the place of the active one: it is built, proven, and then served by the app.
--   building -> ready    (complete, and its gate passed; the app loads its model and serves it)
--   building -> refused  (`why` says what fell short; it stays until something else is wanted, or it is tried again)
--   ready -> active, and the one that was active -> retired: kept in step, to go back to
--   retired -> building or ready  (wanted again)
ALTER TABLE generations DROP CONSTRAINT generations_state_check;
ALTER TABLE generations ADD CONSTRAINT generations_state_check
    CHECK (state IN ('building', 'ready', 'refused', 'active', 'retired'));
CREATE UNIQUE INDEX generations_next ON generations ((true)) WHERE state IN ('building', 'ready', 'refused');

ALTER TABLE generations ADD COLUMN wanted_release text;  -- of the same space, to be compared before it takes over
ALTER TABLE generations ADD COLUMN why text;             -- why it is refused, or does not get on
ALTER TABLE generations ADD COLUMN gate jsonb;           -- what was measured before it became ready
ALTER TABLE generations ADD COLUMN retired_at timestamptz;  -- when it last stopped serving

-- Each generation has a queue of its own.
CREATE INDEX items_queued_in ON items (generation_id, available_at, id) WHERE state = 'queued';
