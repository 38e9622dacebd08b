"""Every result again, by the commands that anyone can give, within the minutes that there are."""
