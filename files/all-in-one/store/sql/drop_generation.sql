-- In the order in which a search locks them.
DROP TABLE {chunks}, {frequencies}, {lexemes};
