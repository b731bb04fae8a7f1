WORD = 'first'
