SELECT lexeme, chunks FROM {frequencies} WHERE lexeme = ANY(%(lexemes)s) AND chunks > 0
