//! The host's calendar: localtime_r(3), which nix and rustix lack.

use std::io;
use std::mem::MaybeUninit;

/// Day of the week, 0 is Sunday, and hours and minutes, of a moment in seconds since 1970, as the host's time zone has it.
pub fn local_time(seconds: i64) -> io::Result<(u8, u8, u8)> {
    let mut local = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to live values of the right types, and a `tm` of zeros is a valid one.
    let local = unsafe {
        if libc::localtime_r(&seconds, local.as_mut_ptr()).is_null() {
            return Err(io::Error::last_os_error());
        }
        local.assume_init()
    };
    // localtime_r(3): 0 to 6, 0 to 23, 0 to 59.
    Ok((local.tm_wday as u8, local.tm_hour as u8, local.tm_min as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_minutes_go_on_as_time_does() {
        let (day, hour, minute) = local_time(1_700_000_000).unwrap();
        let week = |(day, hour, minute): (u8, u8, u8)| (u32::from(day) * 24 + u32::from(hour)) * 60 + u32::from(minute);
        let hour_later = local_time(1_700_000_000 + 3600).unwrap();
        assert_eq!((week(hour_later) + 10080 - week((day, hour, minute))) % 10080, 60);
    }
}
