-- In the order in which a search reads them.
DROP TABLE {chunks}, {frequencies}, {lexemes};
