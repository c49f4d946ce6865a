SET TRANSACTION SNAPSHOT {snapshot};
SET LOCAL lock_timeout = {patience}
