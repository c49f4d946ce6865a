SELECT generations.id
FROM generations
LEFT JOIN active_generation ON active_generation.generation_id = generations.id
WHERE generations.id <> ALL(%(without)s)
ORDER BY active_generation.generation_id IS NULL, generations.state = 'retired', generations.id DESC
