"""Schedules, solvers, seeded noise and the denoising loop: functions of tensors."""
