SELECT generations.id
FROM generations
LEFT JOIN active_generation ON active_generation.generation_id = generations.id
ORDER BY active_generation.generation_id IS NULL, generations.state = 'retired', generations.id DESC
