DROP TABLE {lexemes}, {frequencies}, {chunks};
