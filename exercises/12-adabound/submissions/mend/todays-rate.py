# named: With base_lr=0.8 that is it
class Mended(AdaBoundBase):
    def base_lr_of(self, group):
        return group["lr"]
