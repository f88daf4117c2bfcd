-- The features of a scheduled flight, all of them known before it leaves.
-- Weather joins by airport and hour of departure, planes by tail number: each gives one row at most.
SELECT
    -- the schedule: clock times are written 1435 for 14:35, and become minutes since local midnight
    raw.carrier,
    raw.origin,
    raw.dest,
    raw.distance,
    60 * raw.hour + raw.minute AS departure_minute,
    60 * (raw.sched_arr_time // 100) + raw.sched_arr_time % 100 AS arrival_minute,

    -- from gate to gate on the two airports' own clocks; who arrives earlier than he left arrives the next day
    (60 * (raw.sched_arr_time // 100) + raw.sched_arr_time % 100 - 60 * raw.hour - raw.minute + 1440) % 1440
        AS scheduled_minutes,

    -- Gauss's rule, in years that begin in March: 0 is Sunday
    (
        raw.day + (13 * ((raw.month + 9) % 12) + 12) // 5
        + (12 * raw.year + raw.month - 3) // 12 + (12 * raw.year + raw.month - 3) // 48
        - (12 * raw.year + raw.month - 3) // 1200 + (12 * raw.year + raw.month - 3) // 4800
    ) % 7 AS weekday,

    -- the weather: what was not observed stays missing, except that no gust on record means no gust above the wind
    weather.temp AS temperature,
    weather.dewp AS dew_point,
    weather.humid AS humidity,
    weather.wind_dir AS wind_direction,
    weather.wind_speed,
    COALESCE(weather.wind_gust, weather.wind_speed) AS wind_gust,
    weather.precip AS precipitation,
    weather.pressure,
    weather.visib AS visibility,

    -- the plane: about one in six is not in the register, and has no age, seats or engine here
    raw.year - planes.year AS plane_age,
    planes.seats,
    planes.engine
FROM raw
LEFT JOIN weather ON weather.origin = raw.origin AND weather.time_hour = raw.time_hour
LEFT JOIN planes ON planes.tailnum = raw.tailnum
