-- The tables in the order in which a generation is dropped, so that neither waits for the other in a circle.
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
{moment};
LOCK TABLE {chunks}, {frequencies}, {lexemes} IN ACCESS SHARE MODE
