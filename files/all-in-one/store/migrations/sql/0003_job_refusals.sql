-- Lines of a stream that could not be kept; the others of the same job were.
CREATE TABLE job_refusals (
    job_id  uuid     NOT NULL REFERENCES jobs ON DELETE CASCADE,
    line    integer  NOT NULL,  -- from 1
    reason  text     NOT NULL,
    PRIMARY KEY (job_id, line)
);
