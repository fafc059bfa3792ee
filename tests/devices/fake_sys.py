"""A /sys with the frequencies and the temperature of a phone, for QEMU's -L and for the agent."""


def write_sys(root, max_khz, *, millidegrees=None):
    """Write <root>/sys for cores with these highest frequencies; return the file of the sensor."""
    for core, khz in enumerate(max_khz):
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        for name in ("cpuinfo_max_freq", "scaling_cur_freq"):
            (folder / name).write_text(f"{khz}\n")
        (folder / "scaling_governor").write_text("schedutil\n")
    (root / "sys/devices/system/cpu/cpuidle").mkdir(parents=True, exist_ok=True)
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    sensor = zone / "temp"
    if millidegrees is not None:
        sensor.write_text(f"{millidegrees}\n")
    return sensor
