# named: Look at a group that is added later
class Mended(AdaBoundBase):
    def base_lr_of(self, group):
        return group["base_lr"] or self.defaults["lr"]
